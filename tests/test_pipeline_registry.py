"""What Kedro-Viz shows of the pipelines."""

from efficientnet_finetuning.pipeline_registry import register_pipelines


def test_every_node_has_a_sentence_for_kedro_viz():
    for node in (node for pipeline in register_pipelines().values() for node in pipeline.nodes):
        sentence = node.preview().content
        assert sentence.endswith("."), node.name
        assert len(sentence.split()) > 2, node.name
        assert "\n" not in sentence
