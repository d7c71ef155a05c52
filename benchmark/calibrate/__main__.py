"""`python -m benchmark.calibrate [--protocol 4]`."""

import sys

from benchmark.calibrate import calibration, rotation_calibration

PROTOCOL_4 = ["--protocol", "4"]


def main(arguments: list[str]) -> int:
    """Calibrate protocol 3, or protocol 4 if the first options are `--protocol 4`."""
    if arguments[:2] == PROTOCOL_4:
        return rotation_calibration.main(arguments[2:])
    return calibration.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
