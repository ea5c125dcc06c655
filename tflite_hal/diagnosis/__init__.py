"""What stands between a machine's accelerators and a TensorFlow Lite model, stage by stage."""

from tflite_hal.diagnosis.diagnose import Diagnosis, diagnose
from tflite_hal.diagnosis.finding import Finding, Step, findings
from tflite_hal.diagnosis.inspection import inspected
from tflite_hal.diagnosis.runtimes import proven
from tflite_hal.diagnosis.schema import report_schema
from tflite_hal.diagnosis.script import repair_script
from tflite_hal.diagnosis.unreached import Unreached, unreached

__all__ = [
    "Diagnosis",
    "Finding",
    "Step",
    "Unreached",
    "diagnose",
    "findings",
    "inspected",
    "proven",
    "repair_script",
    "report_schema",
    "unreached",
]
