"""The processes that train and measure."""
