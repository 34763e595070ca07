"""What is studied: the Focal Transformer in plain PyTorch. Importing this package imports no torch.

`options` and `presets` are pure Python, so that plans and reports can say what a model computes without
building it; `focal` is the network; `entry_points` registers every preset with timm.
"""
