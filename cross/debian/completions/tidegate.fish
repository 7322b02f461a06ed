# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tidegate_global_optspecs
    string join \n h/help V/version
end

function __fish_tidegate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tidegate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tidegate_using_subcommand
    set -l cmd (__fish_tidegate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tidegate -n "__fish_tidegate_needs_command" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_needs_command" -s V -l version -d 'Print version'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "run" -d 'Run the gateway until SIGTERM or SIGINT'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "check" -d 'Check the configuration, tell all that is wrong with it, and change nothing'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "status" -d 'Tell how the gateway is, how long its disk lasts and how long the backlog takes'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "buffer" -d 'Look at what waits for Kafka, and take out of it, on a running or a stopped gateway'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "clients" -d 'List the MQTT clients of a running gateway, or send one away'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "verify" -d 'Read a topic back from Kafka and tell what is missing, twice or out of order'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "import" -d 'Turn another broker\'s configuration into a tidegate.toml'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "passwd" -d 'Write a user\'s password into a password file'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "update" -d 'Install an update of the whole system, on the image of docs/install.md'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand check" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand check" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand check" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -l json -d 'Print JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "ls" -d 'List the streams (topic/partition) that have records waiting'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "show" -d 'Show what waits of one stream, number by number'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "dump" -d 'Print the records that wait, each as a line of JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "check" -d 'Read every frame on disk and tell what is damaged; ends with 1 if something is'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "drop" -d 'Drop records of one stream for good; they are written to the loss ledger'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "quarantine" -d 'Look at, or take out, the records that Kafka has rejected for good'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and not __fish_seen_subcommand_from ls show dump check drop quarantine help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from ls" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from ls" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from ls" -l all -d 'Those that have none, too'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from ls" -l json -d 'Print JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from show" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from show" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from dump" -l stream -d 'Only those of TOPIC/PARTITION' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from dump" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from dump" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from dump" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from check" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from check" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from check" -l json -d 'Print JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from drop" -l stream -d 'TOPIC/PARTITION, as `ls` prints it' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from drop" -l range -d 'RUN:FIRST-LAST, as `show` prints them; may be given several times' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from drop" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from drop" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from drop" -l all -d 'All that waits of the stream'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from drop" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -f -a "ls" -d 'List them, each with its id and Kafka\'s reason'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -f -a "show" -d 'Print one whole, as JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -f -a "retry" -d 'Send them once more, behind what waits for their topics'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -f -a "drop" -d 'Drop them for good'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from quarantine" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List the streams (topic/partition) that have records waiting'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show what waits of one stream, number by number'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "dump" -d 'Print the records that wait, each as a line of JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "check" -d 'Read every frame on disk and tell what is damaged; ends with 1 if something is'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "drop" -d 'Drop records of one stream for good; they are written to the loss ledger'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "quarantine" -d 'Look at, or take out, the records that Kafka has rejected for good'
complete -c tidegate -n "__fish_tidegate_using_subcommand buffer; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -l json -d 'Print JSON, a line a client'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -f -a "ls" -d 'List them; so without a word, too'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -f -a "kick" -d 'End a client\'s connection; it may come back'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and not __fish_seen_subcommand_from ls kick help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from ls" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from ls" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from kick" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from kick" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from kick" -l forget -d 'Forget its session too: subscriptions and what waits for it'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from kick" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List them; so without a word, too'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from help" -f -a "kick" -d 'End a client\'s connection; it may come back'
complete -c tidegate -n "__fish_tidegate_using_subcommand clients; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand verify" -l config -d 'The configuration; TIDEGATE__SECTION__KEY variables override its keys' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand verify" -l board -d 'Take this board\'s defaults, not those of the board found here (docs/boards.md)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand verify" -l topic -d 'The Kafka topic to read, from its beginning to its end as it is now' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand verify" -l ledger -d 'Acknowledged messages, to judge by them what runs had behind their last record in Kafka' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand verify" -l json -d 'Print JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and not __fish_seen_subcommand_from mosquitto help" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and not __fish_seen_subcommand_from mosquitto help" -f -a "mosquitto" -d 'Read a mosquitto.conf; what has no counterpart is told on stderr'
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and not __fish_seen_subcommand_from mosquitto help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and __fish_seen_subcommand_from mosquitto" -l output -d 'Where to write the tidegate.toml, which must not be there yet; else it goes to stdout' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and __fish_seen_subcommand_from mosquitto" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and __fish_seen_subcommand_from help" -f -a "mosquitto" -d 'Read a mosquitto.conf; what has no counterpart is told on stderr'
complete -c tidegate -n "__fish_tidegate_using_subcommand import; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand passwd" -l delete -d 'Take the user out of the file'
complete -c tidegate -n "__fish_tidegate_using_subcommand passwd" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand update" -l no-reboot -d 'Install it, and leave the start to somebody else'
complete -c tidegate -n "__fish_tidegate_using_subcommand update" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "run" -d 'Run the gateway until SIGTERM or SIGINT'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "check" -d 'Check the configuration, tell all that is wrong with it, and change nothing'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "status" -d 'Tell how the gateway is, how long its disk lasts and how long the backlog takes'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "buffer" -d 'Look at what waits for Kafka, and take out of it, on a running or a stopped gateway'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "clients" -d 'List the MQTT clients of a running gateway, or send one away'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "verify" -d 'Read a topic back from Kafka and tell what is missing, twice or out of order'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "import" -d 'Turn another broker\'s configuration into a tidegate.toml'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "passwd" -d 'Write a user\'s password into a password file'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "update" -d 'Install an update of the whole system, on the image of docs/install.md'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check status buffer clients verify import passwd update help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from buffer" -f -a "ls" -d 'List the streams (topic/partition) that have records waiting'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from buffer" -f -a "show" -d 'Show what waits of one stream, number by number'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from buffer" -f -a "dump" -d 'Print the records that wait, each as a line of JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from buffer" -f -a "check" -d 'Read every frame on disk and tell what is damaged; ends with 1 if something is'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from buffer" -f -a "drop" -d 'Drop records of one stream for good; they are written to the loss ledger'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from buffer" -f -a "quarantine" -d 'Look at, or take out, the records that Kafka has rejected for good'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from clients" -f -a "ls" -d 'List them; so without a word, too'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from clients" -f -a "kick" -d 'End a client\'s connection; it may come back'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from import" -f -a "mosquitto" -d 'Read a mosquitto.conf; what has no counterpart is told on stderr'
