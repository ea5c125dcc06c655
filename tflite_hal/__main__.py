"""``python -m tflite_hal``."""

from tflite_hal.cli import main

if __name__ == "__main__":
    main(prog_name="tflite-hal")
