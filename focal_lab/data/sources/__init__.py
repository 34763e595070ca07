"""Where images are read from: folders, tar, zip and parquet files."""
