/* Named by manifests of this directory; nobody compiles it. */
