"""Data sets with boxes and instance masks: COCO."""
