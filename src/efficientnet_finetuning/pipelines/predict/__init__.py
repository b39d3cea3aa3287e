from efficientnet_finetuning.pipelines.predict import pipeline as pipeline
