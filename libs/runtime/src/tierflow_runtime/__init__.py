"""What every Tierflow service shares: settings, serving, health, errors, telemetry, messaging, supervision."""
