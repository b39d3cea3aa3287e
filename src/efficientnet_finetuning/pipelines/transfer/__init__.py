from efficientnet_finetuning.pipelines.transfer import pipeline as pipeline
