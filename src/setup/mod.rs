//! Builds what a use case needs out of settings: links to AWS, plans, places. The command line and the endpoint share it.
