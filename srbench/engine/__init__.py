"""The engine: cells to image keys, missing images to batches, images and scores to the store."""
