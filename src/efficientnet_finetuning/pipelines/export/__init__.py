from efficientnet_finetuning.pipelines.export import pipeline as pipeline
