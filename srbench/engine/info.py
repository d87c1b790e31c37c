"""What a method is told of an opened backbone."""

from __future__ import annotations



