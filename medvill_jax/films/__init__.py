"""Films from files: DICOM, PNG, JPEG and other images -> uint8 `[H, W]`, read strictly."""
