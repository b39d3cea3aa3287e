from efficientnet_finetuning.pipelines.review import pipeline as pipeline
