"""What runs: the command line and the services. The only room that joins the others."""
