"""One LightningDataModule a data set. `digits` needs no download and is the default of every experiment."""
