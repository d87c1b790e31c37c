"""The bundled laboratory backbone: its words (`world`, `captions`), its weights, and how they are built (`build`)."""
