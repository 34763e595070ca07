"""Loading weights: released formats, other sizes and options, Swin's weights."""
