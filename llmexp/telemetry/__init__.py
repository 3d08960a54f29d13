"""What the hardware drew while a load ran: GPUs by NVML or a DCGM exporter, the CPU by RAPL.

A source is read some times a second from before the load until after it, in the driver's process and on its clock.
`report` turns the readings into metrics over the run's window and into curves beside the run's own.
"""

from llmexp.telemetry.report import Work, regraded, report
from llmexp.telemetry.sources import choose
from llmexp.telemetry.watch import PowerWatch

__all__ = ["PowerWatch", "Work", "choose", "regraded", "report"]
