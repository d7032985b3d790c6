"""From image files to batches on the device. Each sub-package is a layer that imports only those below it:

`audit` and `loading`; `records` and `transforms`; `decoding`; `datasets` and `media`; `atomic` and `parallel`;
`exceptions`. Import the module you need; importing `pipelines` loads nothing else.
"""
