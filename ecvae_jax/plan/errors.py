"""What can go wrong in a plan. Imports nothing."""


class PlanError(ValueError):
    """A plan that cannot be made: no compiler, a topology that does not exist, a batch that does not fit."""


class TooLargeError(PlanError):
    """A program that needs more memory than the chip has."""
