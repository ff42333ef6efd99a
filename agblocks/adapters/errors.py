"""What can be wrong with adapters: each says what, where, what there is, and what would help."""

from __future__ import annotations

from ..errors import AgblocksError


class AdapterError(AgblocksError):
    """Something about adapters; the model is as it was before the call."""


class NoTargetMatch(AdapterError):
    """A pattern of a spec matches no module."""


class TargetCountMismatch(AdapterError):
    """A spec matches another number of modules than it expects."""


class UnsupportedModule(AdapterError):
    """A kind of adapter cannot sit on a module."""


class AlreadyAttached(AdapterError):
    """There is an adapter of that name already."""


class DuplicateSite(AdapterError):
    """One name puts the same kind on a module twice."""


class UnknownAdapter(AdapterError):
    """There is no adapter of that name."""


class MergedStateError(AdapterError):
    """Something was asked that makes no sense while adapters are merged."""


class NotMergeable(AdapterError):
    """An adapter cannot be folded into weights; the message lists sites and reasons."""


class StaleMerge(AdapterError):
    """Merged weights were changed, so that taking the backup back would lose the change."""


class NonFiniteMerge(AdapterError):
    """Folding gave weights that are not finite."""


class QuantizedBaseError(AdapterError):
    """The base's weights are quantised where dense ones are needed."""


class SiteNeverFired(AdapterError):
    """A module was not called in the probe, so an adapter on it would never do anything."""


class NotIdentity(AdapterError):
    """Adapters that should change nothing at the start changed the probe's outputs."""


class AdapterFileError(AdapterError):
    """An adapter file that cannot be used: truncated, tampered with, of another form."""


class BaseMismatch(AdapterError):
    """An adapter file was made on another model, or on other weights."""


class CompiledModelError(AdapterError):
    """A model that was compiled before adapters were attached, so that it may not notice them."""


class ReentrantCheckpointError(AdapterError):
    """Reentrant checkpointing, under which adapters behind a frozen stem get no gradients."""


class WrappedBaseError(AdapterError):
    """The base alone was wrapped for distributed training, so that adapters' gradients would not be shared."""


class CompositionError(AdapterError):
    """A composition that does not make sense, and why."""
