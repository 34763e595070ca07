"""The networks under study, in plain PyTorch. Importing this package does not import torch.

`options` and `presets` are pure Python, so that plans and reports can describe a model without building it;
`model` is the network; `registry` registers every preset with timm.
"""
