from efficientnet_finetuning.pipelines.reporting import pipeline as pipeline
