"""Every built-in part of segreg, registered exactly as a third party would."""
