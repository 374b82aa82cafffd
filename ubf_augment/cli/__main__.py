"""``python -m ubf_augment.cli`` is ``ubf``."""

from ubf_augment.cli import main

raise SystemExit(main())
