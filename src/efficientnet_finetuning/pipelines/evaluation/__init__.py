from efficientnet_finetuning.pipelines.evaluation import pipeline as pipeline
