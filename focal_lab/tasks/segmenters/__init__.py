"""Parts of the segmentation task: network, way of evaluation, metrics, pictures."""
