from efficientnet_finetuning.pipelines.add_class import pipeline as pipeline
