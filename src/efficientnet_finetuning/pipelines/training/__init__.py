from efficientnet_finetuning.pipelines.training import pipeline as pipeline
