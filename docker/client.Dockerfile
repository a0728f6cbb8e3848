# A Linux client for compose.yml: it mounts one clone with the kernel's NFS client and shows it.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends nfs-common python3 && rm -rf /var/lib/apt/lists/*
COPY docker/mount-clone /usr/local/bin/mount-clone
ENTRYPOINT ["mount-clone"]
CMD ["ls", "-la", "."]
