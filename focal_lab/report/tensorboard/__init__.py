"""What `focal-lab dashboard` shows in TensorBoard; neither torch nor tensorflow is imported."""
