"""Data modules, and the sources that they read."""

from typing import TYPE_CHECKING

from focal_lab.utils.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from focal_lab.data.classification.cifar import CifarDataModule as CifarDataModule
    from focal_lab.data.classification.data_module import ClassificationDataModule as ClassificationDataModule
    from focal_lab.data.classification.fashion_mnist import FashionMnistDataModule as FashionMnistDataModule
    from focal_lab.data.classification.fashion_mnist import IdxDataModule as IdxDataModule
    from focal_lab.data.classification.image_folder import ImageFolderDataModule as ImageFolderDataModule
    from focal_lab.data.detection.coco import CocoDataModule as CocoDataModule
    from focal_lab.data.digits.classification import DigitsClassification as DigitsClassification
    from focal_lab.data.digits.retrieval import DigitsRetrieval as DigitsRetrieval
    from focal_lab.data.digits.scenes import DigitsDetection as DigitsDetection
    from focal_lab.data.digits.scenes import DigitsSegmentation as DigitsSegmentation
    from focal_lab.data.segmentation.mask_folder import Ade20kDataModule as Ade20kDataModule
    from focal_lab.data.segmentation.mask_folder import SegmentationFolder as SegmentationFolder

_MODULES = {
    "CifarDataModule": "classification.cifar",
    "ClassificationDataModule": "classification.data_module",
    "FashionMnistDataModule": "classification.fashion_mnist",
    "IdxDataModule": "classification.fashion_mnist",
    "ImageFolderDataModule": "classification.image_folder",
    "CocoDataModule": "detection.coco",
    "DigitsClassification": "digits.classification",
    "DigitsRetrieval": "digits.retrieval",
    "DigitsDetection": "digits.scenes",
    "DigitsSegmentation": "digits.scenes",
    "Ade20kDataModule": "segmentation.mask_folder",
    "SegmentationFolder": "segmentation.mask_folder",
}
__all__ = list(_MODULES)
__getattr__ = lazy_imports(__name__, _MODULES)
