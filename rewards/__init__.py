"""Answer checking and the extrinsic reward columns."""
