"""How the names and addresses begin that detkit reads."""

TORCHVISION, DETECTRON2 = "torchvision:", "detectron2:"
HUB = "hf://"
WEB = ("http://", "https://", "ftp://")
