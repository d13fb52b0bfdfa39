/* daemons.c - functions that leave processes behind. */
#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the process that is to stay: another program, so that it is known by its arguments. It ends by
 * itself some time after every test has. */
static void stay(const char *mark)
{
    static char script[] = "sleep 300; exit 0 # ";
    char *arguments[] = { (char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", script,
                          (char *)(uintptr_t)mark, NULL };

    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    execv("/bin/sh", arguments);
    _exit(1);
}

/* In: a mark. Leaves a daemon of that mark: in a session of its own, its parent dead, with nothing
 * of its maker's open. */
PHR_FUNCTION(leaves_a_daemon)
{
    char mark[64];
    int status;
    pid_t child;

    snprintf(mark, sizeof mark, "%s", (const char *)phr_data(phr_input(ctx, 0)));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        pid_t daemon;

        setsid();
        daemon = fork();
        if (daemon == 0) {
            for (int fd = 0; fd < 64; fd++)
                close(fd);
            stay(mark);
        }
        _exit(daemon < 0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return phr_respond_data(ctx, "left", 4);
}

PHR_FUNCTION(echo)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_parts(ctx, &in, 1);
}
