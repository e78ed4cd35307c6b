"""The vision track: image data and the small convolutional networks trained on them."""
