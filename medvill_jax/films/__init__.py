"""Decodes films, DICOM, PNG, JPEG and other images, to uint8 `[H, W]`; damaged files are refused."""
