"""Classify a picture of a digit on whatever this machine runs the model on best.

python examples/classify_digit.py [MODEL.tflite] [PICTURE]
"""

import sys
from pathlib import Path

from tflite_hal import Runner, images

HERE = Path(__file__).resolve().parent
model = sys.argv[1] if len(sys.argv) > 1 else HERE / "digits_int8.tflite"
picture = sys.argv[2] if len(sys.argv) > 2 else HERE / "digit_7.png"
labels = (HERE / "digits_labels.txt").read_text().split()

with Runner.auto(model) as runner:
    image = images.fit(picture, runner.inputs[0], mean=0.0, std=255.0)
    scores = runner.predict(image, dequantize=True)
    for label, score in images.top(scores, labels, k=3):
        print(f"{label}: {score:.3f}")
    print(runner.selection)
