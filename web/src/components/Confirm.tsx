import { Button, Group, Stack, Text } from "@mantine/core";
import type { UseMutationResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Dialog } from "./Dialog";
import { ErrorView } from "./Failure";

/** Asks before something is lost; stays open, with the reason, where it could not be done. */
export function Confirm(props: {
  title: string;
  text: string;
  keep: string;
  lose: string;
  work: Pick<UseMutationResult<unknown, Error, void>, "mutate" | "isPending" | "isError" | "error">;
  close: () => void;
  children?: ReactNode;
}) {
  const { work } = props;
  return (
    <Dialog title={props.title} close={props.close}>
      <Stack>
        <Text size="sm">{props.text}</Text>
        {props.children}
        {work.isError && <ErrorView error={work.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={props.close}>
            {props.keep}
          </Button>
          <Button color="red" loading={work.isPending} onClick={() => work.mutate()}>
            {props.lose}
          </Button>
        </Group>
      </Stack>
    </Dialog>
  );
}
