"""One module for each training stage of the pipeline: its `Sections` of params.yaml and its function `run`.

A stage reads artefacts, trains through the modules of `training`, and writes artefacts. It knows no scheduler.
"""
