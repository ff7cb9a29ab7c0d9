"""Code that inpaints. Only this package may import cv2 or torch."""
