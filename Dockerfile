# perch needs nothing but a kernel; `make build` puts the program here.
FROM scratch
COPY bin/perch /perch
VOLUME /var/lib/perch
EXPOSE 6443 9443 10250 24224
ENTRYPOINT ["/perch"]
CMD ["server"]
