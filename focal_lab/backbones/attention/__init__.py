"""Focal attention: the layer, its reference, the fused path for GPUs, pooling and projections."""
