from efficientnet_finetuning.pipelines.choice import pipeline as pipeline
