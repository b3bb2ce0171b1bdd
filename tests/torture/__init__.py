"""The torture suite: the real pipeline under load while its parts are killed, frozen or cut off."""
