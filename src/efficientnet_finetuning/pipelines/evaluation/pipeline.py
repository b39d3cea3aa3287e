"""{regime}_model, test_images → {regime}_metrics, {regime}_predictions → {regime}_gallery, {regime}_cost."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.evaluation.nodes import (
    evaluate_classifier,
    measure_cost,
    show_what_to_look_at,
)


def create_pipeline(regime: str) -> Pipeline:
    """Evaluate one regime's classifier on the test split, in the regime's namespace."""
    nodes = [
        Node(
            evaluate_classifier,
            ["model", "validation_images", "test_images", "class_names", "params:evaluation"],
            ["metrics", "predictions"],
            name="evaluate_classifier",
            tags="gpu",
        ),
        Node(
            show_what_to_look_at,
            ["model", "test_images", "predictions"],
            "gallery",
            name="show_what_to_look_at",
            tags="gpu",
        ),
        Node(measure_cost, "model", "cost", name="measure_cost", tags="gpu"),
    ]
    shared = {name: name for name in ("validation_images", "test_images", "class_names")}
    return Pipeline(
        nodes,
        namespace=regime,
        inputs={"model": f"{regime}_model"} | shared,
        outputs={name: f"{regime}_{name}" for name in ("metrics", "predictions", "gallery", "cost")},
        parameters={"evaluation"},
    )
