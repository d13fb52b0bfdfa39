/*
 * serve.c - functions of a node that serves: answers of every kind, and one that reaches for the
 * node itself.
 */
#include "check.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

PHR_FUNCTION(echo)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_parts(ctx, &in, 1);
}

/* Ends without a response. */
PHR_FUNCTION(silent)
{
    (void)ctx;
    return PHR_OK;
}

PHR_FUNCTION(fails)
{
    return phr_fail(ctx, 3, "no \"luck\"");
}

/* Until the session ends. */
PHR_FUNCTION(waits)
{
    phr_log(ctx, PHR_INFO, "waiting");
    while (!phr_cancelled(ctx))
        usleep(1000);
    phr_log(ctx, PHR_INFO, "cancelled");
    return PHR_OK;
}

/* Answers "bucket key group payload". */
PHR_FUNCTION(describes)
{
    const phr_object *in = phr_input(ctx, 0);
    char text[1024];

    snprintf(text, sizeof text, "%s %s %s %s", phr_bucket(in), phr_key(in), phr_group(in),
             (const char *)phr_data(in));
    return phr_respond_data(ctx, text, strlen(text));
}

/* The answer of a version. */
PHR_FUNCTION(version)
{
    const char *answer = phr_config(ctx, "answer");

    return phr_respond_data(ctx, answer, strlen(answer));
}

/* Both objects of a session that the caller kept open. */
PHR_FUNCTION(pairs)
{
    const phr_object *both[2] = { phr_input(ctx, 0), phr_input(ctx, 1) };

    phr_log(ctx, PHR_INFO, "paired %s and %s", (const char *)phr_data(both[0]),
            (const char *)phr_data(both[1]));
    return PHR_OK;
}

/* What the node says to a request over its own socket: a status, or 0 where it does not listen to
 * us at all. */
static int ask_the_node(const char *socket_path, const char *request)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char answer[256] = "";
    int status = 0;

    if (fd < 0)
        return 0;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        write(fd, request, strlen(request)) > 0 && read(fd, answer, sizeof answer - 1) > 0)
        sscanf(answer, "HTTP/1.1 %d", &status);
    close(fd);
    return status;
}

/* In a process of its own: starts another one and leaves it behind, which asks once it is an
 * orphan, writes what it was told, and ends. A forked process does not have the shared memory, so
 * nothing here may point into it. */
static void ask_as_an_orphan(const char *socket_path, const char *request, int answers)
{
    const pid_t parent = getpid();
    const pid_t orphan = fork();
    int status;

    if (orphan != 0)
        _exit(orphan < 0);
    while (getppid() == parent)
        usleep(1000);
    status = ask_the_node(socket_path, request);
    _exit(write(answers, &status, sizeof status) != (ssize_t)sizeof status);
}

/* Tries to manage the node, itself and from an orphaned grandchild; answers with both statuses. */
PHR_FUNCTION(reaches_for_the_node)
{
    static const char request[] = "DELETE /v1/apps/victim HTTP/1.1\r\nHost: localhost\r\n"
                                  "Content-Length: 0\r\nConnection: close\r\n\r\n";
    int own, orphans, ended, pipes[2];
    char path[108], text[64];
    pid_t child;

    snprintf(path, sizeof path, "%s", (const char *)phr_data(phr_input(ctx, 0)));
    own = ask_the_node(path, request);
    CHECK(pipe(pipes) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        ask_as_an_orphan(path, request, pipes[1]);
    CHECK(waitpid(child, &ended, 0) == child);
    CHECK(ended == 0);
    close(pipes[1]);
    CHECK(read(pipes[0], &orphans, sizeof orphans) == (ssize_t)sizeof orphans);
    close(pipes[0]);
    snprintf(text, sizeof text, "%d %d", own, orphans);
    return phr_respond_data(ctx, text, strlen(text));
}
