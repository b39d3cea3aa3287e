from efficientnet_finetuning.pipelines.ingestion import pipeline as pipeline
