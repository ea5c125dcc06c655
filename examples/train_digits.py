"""Train the example models: handwritten digits, 8x8 grey pixels, as a float and as an int8 .tflite file.

The data come with scikit-learn, so nothing is downloaded. Needs tensorflow, scikit-learn and pillow:

    pip install tensorflow-cpu scikit-learn pillow
    python examples/train_digits.py

Writes next to this script: digits_float.tflite, digits_int8.tflite, digits_labels.txt and digit_7.png.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
SEED = 7
EPOCHS = 60
PICTURE_SIZE = 64
FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
)


def load():
    """Return train and test images (float32, 0..1, shape n x 8 x 8 x 1) and their labels."""
    digits = load_digits()
    x = (digits.images / 16.0).astype(np.float32)[..., np.newaxis]
    return train_test_split(x, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED)


def build(batch=None):
    """Return the untrained network: three convolutions and one dense layer, some 7000 weights."""
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1), batch_size=batch, name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(24, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax", name="scores"),
        ],
        name="digits",
    )


def convert(model, calibration=None):
    """Return the .tflite bytes; with calibration images, int8 throughout, input and output included."""
    # The fixed batch of 1 keeps every shape in the file static, which accelerators want.
    fixed = build(batch=1)
    fixed.set_weights(model.get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(fixed)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    return converter.convert()


def predict(content, images):
    """Return the digit that a .tflite model sees in each image."""
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        if source["dtype"] == np.int8:
            scale, zero_point = source["quantization"]
            image = np.clip(np.round(image / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        answers.append(int(np.argmax(interpreter.get_tensor(target["index"]))))
    return np.array(answers)


def picture_of(image):
    """Return an 8x8 image as a larger greyscale picture, white on black."""
    small = Image.fromarray(np.round(image[..., 0] * 255).astype(np.uint8))
    return small.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BICUBIC)


def shrunk(picture):
    """Return a picture at the model's size, once for each way of resizing."""
    return [np.float32(picture.resize((8, 8), way))[..., np.newaxis] / 255 for way in FILTERS]


def main():
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    x_train, x_test, y_train, y_test = load()

    model = build()
    model.compile(tf.keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=32, epochs=EPOCHS, verbose=2)

    contents = {"digits_float": convert(model), "digits_int8": convert(model, x_train[:300])}
    for name, content in contents.items():
        (HERE / f"{name}.tflite").write_bytes(content)
        accuracy = np.mean(predict(content, x_test) == y_test)
        print(f"{name}: {accuracy:.2%} of {len(y_test)} test images, {len(content)} bytes")

    (HERE / "digits_labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    typical = x_train[y_train == 7].mean(axis=0)
    for image in sorted(x_test[y_test == 7], key=lambda image: np.square(image - typical).sum()):
        picture = picture_of(image)
        if all((predict(content, shrunk(picture)) == 7).all() for content in contents.values()):
            picture.save(HERE / "digit_7.png")
            break
    else:
        raise SystemExit("no test picture of a 7 that both models classify right")


if __name__ == "__main__":
    main()
